"""SSLCommerz (API v4): hosted checkout for Bangladesh; cards, mobile banking, net banking."""
