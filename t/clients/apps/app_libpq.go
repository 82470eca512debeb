package main

import "database/sql"

func connect(urls []string) *Database {
	db := &Database{}
	for _, url := range urls {
		pool, err := sql.Open("postgres", url+"&binary_parameters=yes")
		check(err)
		pool.SetMaxOpenConns(1)
		db.nodes = append(db.nodes, pool)
	}
	return db
}
