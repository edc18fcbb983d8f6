"""Methods that compress parameter trees."""
