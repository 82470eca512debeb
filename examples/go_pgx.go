// Read your own write with Go and pgx.
//
//	go mod init example && go get github.com/jackc/pgx/v4
//	go run go_pgx.go "$PRIMARY" "$REPLICA"
//
// Run with Go 1.19 and pgx 4.15.0.  With pgx 5 only the import path differs;
// that was not run.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v4"
)

func main() {
	ctx := context.Background()
	primary, err := pgx.Connect(ctx, os.Args[1])
	check(err)
	defer primary.Close(ctx)
	replica, err := pgx.Connect(ctx, os.Args[2])
	check(err)
	defer replica.Close(ctx)

	var written, seen int
	check(primary.QueryRow(ctx,
		`UPDATE profiles SET version = version + 1
		 WHERE id = 1 RETURNING version`).Scan(&written))

	// No round trip: it came with the reply to the commit.  Take it before
	// the connection goes back to its pool.
	token := primary.PgConn().ParameterStatus("ryw.token")

	check(replica.QueryRow(ctx,
		`SELECT version FROM profiles
		 WHERE id = 1 AND ryw_require($1, $2)`,
		token, 5000).Scan(&seen))

	fmt.Printf("written %d, token %s, seen %d\n", written, token, seen)
}

func check(err error) {
	if err != nil {
		log.Fatal(err) // *pgconn.PgError, Code RY001: not reached in time
	}
}
