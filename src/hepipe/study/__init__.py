"""What the notebooks call: data, plans, comparisons, measurements, reports, batches."""
