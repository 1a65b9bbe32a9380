raise RuntimeError("the licence has expired")
