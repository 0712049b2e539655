"""How textclf_fast is built: one module a subject; `backend` is what pip calls, `build_ext` is what setup.py calls."""
