"""Who calls: tokens, and what each may do."""
