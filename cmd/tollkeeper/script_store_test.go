package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// storeCommands are the script commands for PostgreSQL.
func storeCommands(t *testing.T) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		// postgres VAR sets a variable to the URL of an empty database, for its owner.
		"postgres": func(ts *testscript.TestScript, _ bool, args []string) { ts.Setenv(args[0], pgtest.New(t)) },
		// role VAR url NAME creates a role, and sets a variable to the URL with which it reaches a database.
		"role": func(ts *testscript.TestScript, _ bool, args []string) {
			server := pgtest.Shared(t)
			ts.Check(server.Exec(context.Background(), "postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", args[2], pgtest.Password)))
			u, err := url.Parse(args[1])
			ts.Check(err)
			ts.Setenv(args[0], server.URLOf(args[2], u.Path[1:]))
		},
		// sql url FILE runs the statements of a file.
		"sql": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(pgtest.Run(context.Background(), args[0], ts.ReadFile(args[1])))
		},
		// writefile FILE text writes a line.
		"writefile": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(args[1]+"\n"), 0o600))
		},
	}
}
