package main

import (
	"context"

	"github.com/jackc/pgx/v4/pgxpool"
)

func connect(urls []string) *Database {
	db := &Database{}
	for _, url := range urls {
		config, err := pgxpool.ParseConfig(url)
		check(err)
		config.LazyConnect = true
		config.MaxConns = 1
		pool, err := pgxpool.ConnectConfig(context.Background(), config)
		check(err)
		db.nodes = append(db.nodes, pool)
	}
	return db
}
