"""One EBGAN trained by five programs, as a reader of the pages writes them."""
