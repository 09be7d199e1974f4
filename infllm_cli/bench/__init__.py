"""Benchmarks: suites of tasks, run by any model under any policy, scored and reported."""
