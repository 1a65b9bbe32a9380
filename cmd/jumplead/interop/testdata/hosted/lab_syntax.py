class X(:
