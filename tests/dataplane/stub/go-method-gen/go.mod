module github.com/haproxytech/go-method-gen

go 1.26
