"""Document ingestion."""
