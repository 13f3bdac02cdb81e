"""The page in the browser: what is filled in becomes a request as the server takes it."""
