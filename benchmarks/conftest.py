"""What is saved of a run: statistics and the kind of machine, not its name, its CPU flags or every single round."""

from __future__ import annotations

from typing import Any


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json.pop("commit_info", None)
    machine = output_json["machine_info"]
    output_json["machine_info"] = {
        "python_version": machine["python_version"],
        "system": machine["system"],
        "cpu": {key: machine["cpu"].get(key) for key in ("brand_raw", "arch", "count", "hz_advertised_friendly")},
    }
    for entry in output_json["benchmarks"]:
        entry["stats"].pop("data", None)
