"""Any network as one graph: captured, stored, evaluated, exported."""
