"""What runs inside the sandbox: the zygote, which imports, and the workers, which are forked from it.

The node mounts its own copy of this folder into every sandbox, as the package `potluck_runner`: so node and runner
always speak one version, and images need nothing of Potluck. Hence the relative imports, and only the standard library.
It must start fast: it loads neither msgspec nor cloudpickle unless the user's code does, and the C modules `_pickle`,
`_signal`, `_socket` and `_thread` instead of their wrappers, which together take as long to import as the interpreter
takes to start. `typing` is imported for the type checker only.
"""
