"""What runs beside an institution's data: judges requests, sums rows, draws noise, keeps the ledger, holds the link."""
