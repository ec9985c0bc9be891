"""What files hold, on its way: read ahead, written behind."""
