"""The canister kit: what an author writes a canister with (DESIGN.md, "What an author writes").

Authors import from `cannery`. The machinery beside it: `describe` reads a class, `program` runs it, `build`
makes a module of it, `module_file` and `manifest` are the module's form, `schema` decides whether a version
can take over.
"""
