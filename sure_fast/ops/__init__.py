"""One file an op: checks, schema, autograd and the choice of backend."""
