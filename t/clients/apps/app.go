// The application of README.md over examples/go_pgx.go or examples/go_libpq.go: it is
// compiled together with one of them, and its init() runs before their main().
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

func init() {
	if os.Getenv("COUNT") == "" {
		serve()
		os.Exit(0)
	}
}

func serve() {
	db := connect(os.Args[1:])
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for turn := 0; in.Scan(); turn++ {
		f := strings.Fields(in.Text())
		var set Tokens
		for _, token := range strings.Split(f[3], ".") {
			set = set.Keep(token)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		n, err, answer := 0, error(nil), "ok"
		switch f[1] {
		case "patch":
			n, err = db.Write(ctx, &set, "UPDATE profiles SET version = "+f[4]+
				" WHERE id = "+f[2]+" RETURNING version")
		case "get":
			n, err = db.Read(ctx, &set, turn, "SELECT version FROM profiles WHERE id = "+f[2])
		case "idle":
			answer = "none"
		}
		cancel()
		value := fmt.Sprint(n)
		if f[1] == "stats" {
			value = fmt.Sprintf("%d/%d", db.fallbacks, db.onPrimary)
		}
		if errors.Is(err, ErrTokenLost) {
			answer, value = "lost", "-"
		} else if err != nil {
			answer, value = "error", strings.Join(strings.Fields(err.Error()), "_")
		}
		text := set.String()
		if text == "" {
			text = "-"
		}
		fmt.Println(f[0], answer, value, text)
	}
}
