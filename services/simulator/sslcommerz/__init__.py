"""SSLCommerz: sessions on a hosted page, validation, transaction query, refunds, signed notices."""
