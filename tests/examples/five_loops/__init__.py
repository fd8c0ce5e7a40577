"""Five programs that train one EBGAN, as a reader of the pages would write them."""
