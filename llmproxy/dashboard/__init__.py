"""The dashboard: pages on which users help themselves, under `/dashboard`."""
