// Read your own writes with Go, database/sql and lib/pq: write on the primary, read on replicas.
//
//	go mod init example && go get github.com/lib/pq
//	go run go_libpq.go "$PRIMARY" "$REPLICA1" "$REPLICA2"
//
// Of servers without TLS the addresses end with ?sslmode=disable.
// COUNT, TOKEN and GUARD in the environment are explained in README.md.
// Run with Go 1.19 and lib/pq 1.10.7.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

const (
	wait     = 300 * time.Millisecond // on one node
	deadline = 2 * time.Second        // for one read, over all nodes
)

// ErrTokenLost says that a failover has undone a write of this user.
var ErrTokenLost = errors.New("token lost: a write of yours is gone")

// Tokens are those of one user: what the next request gets from a cookie.  Guard
// them by a mutex where requests of one user share them.
type Tokens []string

// Keep adds a token.  Same timeline and tag: the greater LSN, as a number.  Else both.
func (set Tokens) Keep(token string) Tokens {
	tli, lsn, tag, ok := parts(token)
	if !ok {
		return set
	}
	for i, old := range set {
		if tli2, lsn2, tag2, _ := parts(old); tli == tli2 && tag == tag2 {
			if lsn > lsn2 {
				set[i] = token
			}
			return set
		}
	}
	if len(set) == 8 {
		set = set[1:] // the first is the oldest
	}
	return append(set, token)
}

func (set Tokens) String() string { return strings.Join(set, ".") }

func parts(token string) (tli string, lsn uint64, tag string, ok bool) {
	field := strings.Split(token, "-")
	if len(field) != 3 {
		return
	}
	lsn, err := strconv.ParseUint(field[1], 16, 64)
	return field[0], lsn, field[2], err == nil
}

// Database has a pool for each node; the first is the primary.
type Database struct {
	nodes                []*sql.DB
	fallbacks, onPrimary int
}

// Write runs a statement that returns a number, and keeps its token.
func (db *Database) Write(ctx context.Context, set *Tokens, query string) (n int, err error) {
	conn, err := db.nodes[0].Conn(ctx) // one connection for both
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err = conn.QueryRowContext(ctx, query).Scan(&n); err != nil {
		return 0, err
	}
	// lib/pq does not show what the server has reported, so it is asked, on the same
	// connection.  (Not through a pooler in transaction mode.)
	var token sql.NullString
	err = conn.QueryRowContext(ctx, "SELECT ryw_token()").Scan(&token)
	*set = set.Keep(token.String)
	return n, err
}

// Read runs a query of a number that ends with its conditions: the guard is one more.
func (db *Database) Read(ctx context.Context, set *Tokens, turn int, query string) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	end, _ := ctx.Deadline()
	last := len(db.nodes) - 1
	again := false
	for i := 0; ; db.fallbacks++ {
		which := 0 // replicas first, each time another one; the primary at last
		if i < last {
			which = 1 + (turn+i)%last
		}
		left := time.Until(end)
		if left > wait {
			left = wait
		}
		err = db.nodes[which].QueryRowContext(ctx, query+" AND ryw_require($1, $2)",
			set.String(), left.Milliseconds()).Scan(&n)
		if err == nil {
			if which == 0 {
				db.onPrimary++
			}
			return n, nil
		}
		code := "08000" // no connection, or it broke
		var pgErr *pq.Error
		if errors.As(err, &pgErr) {
			code = string(pgErr.Code)
		}
		log.Printf("%s on node %d", code, which)
		once := code == "RY004" || code == "40001"
		switch {
		case ctx.Err() != nil:
			return 0, err
		case code == "RY002":
			var current string
			err = db.nodes[0].QueryRowContext(ctx, "SELECT ryw_current_token()::text").Scan(&current)
			if err != nil {
				return 0, err
			}
			*set = Tokens{current}
			return 0, ErrTokenLost
		case code == "RY003" && i < last: // a node astray?  The primary knows
			i = last
		case code == "RY003": // of another cluster: dropped
			*set = nil
		case once && !again:
			again = true
		case i == last:
			return 0, err
		case once:
			i = last
		case code == "RY001" || code == "RY005" || code == "RY006" ||
			strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P"):
			i++
		default:
			return 0, err
		}
	}
}

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	db := &Database{}
	for _, url := range os.Args[1:] {
		separator := "?"
		if strings.Contains(url, "?") {
			separator = "&"
		}
		// the query and its parameters as one message, not prepared ahead
		pool, err := sql.Open("postgres", url+separator+"binary_parameters=yes")
		check(err)
		defer pool.Close()
		db.nodes = append(db.nodes, pool)
	}
	var set Tokens
	for _, token := range strings.Split(os.Getenv("TOKEN"), ".") {
		set = set.Keep(token)
	}
	times, err := strconv.Atoi(os.Getenv("COUNT"))
	if err != nil {
		times = 1
	}
	stale, lost := 0, 0
	for turn := 0; turn < times; turn++ {
		written, err := db.Write(ctx, &set,
			"UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version")
		check(err)
		if os.Getenv("GUARD") == "off" {
			set = nil
		}
		seen, err := db.Read(ctx, &set, turn, "SELECT version FROM profiles WHERE id = 1")
		for errors.Is(err, ErrTokenLost) {
			lost++
			fmt.Println(err)
			seen, err = db.Read(ctx, &set, turn, "SELECT version FROM profiles WHERE id = 1")
		}
		check(err)
		if seen < written {
			stale++
		}
	}
	fmt.Printf("%d written, %d stale, %d lost, %d on the primary, %d fallbacks, token %s\n",
		times, stale, lost, db.onPrimary, db.fallbacks, set)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
