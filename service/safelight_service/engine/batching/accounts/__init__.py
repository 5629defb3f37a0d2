"""Accounts: what the device has done for each job and tenant."""
