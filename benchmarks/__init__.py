"""pytest-benchmark files, one an op; `make bench` saves their JSON and `python -m benchmarks.report` tabulates it."""
