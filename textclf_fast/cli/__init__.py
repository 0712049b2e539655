"""The program `textclf-fast`: one file a sub-command. None of them imports torch before it runs."""
