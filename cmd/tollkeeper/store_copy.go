package main

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

func (c *cli) storeCopyCmd() *cobra.Command {
	var from, to string
	var insecure bool
	cmd := &cobra.Command{
		Use: "copy", Short: "Copy a whole store into an empty one, such as from bolt to PostgreSQL",
		Long: `Copy everything that a store keeps into an empty one: accounts, keys, revocations, usage,
credits with their ids, settlements. A store is

  bolt:DIR         the data file in a data directory
  postgres:@FILE   a PostgreSQL database, whose URL is in a file
  postgres:URL     the same with the URL itself, for one without a password
  postgres:        the same, with everything from the environment of libpq

Stop all servers on both stores first. A data file that is in use is refused, and so is a
database that servers use. For PostgreSQL give the URL of the owner of the schema, which
store migrate creates.

The copy is verified: both stores are read again, and their entries are counted and hashed.
Until then no server starts on the target. If the copy is interrupted, run the same command
again, and it continues. If the source has changed meanwhile, it starts over.

What servers held that were not stopped in order is stranded, as after a crash.`,
		Example: `  tollkeeper store copy --from bolt:data --to postgres:@owner.url
  tollkeeper store copy --from postgres:@owner.url --to bolt:newdata`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.storeCopy(cmd, from, to, insecure) },
	}
	cmd.Flags().StringVar(&from, "from", "", "store to copy, such as bolt:data")
	cmd.Flags().StringVar(&to, "to", "", "empty store to write, such as postgres:@owner.url")
	cmd.Flags().BoolVar(&insecure, "insecure", false, "accept a PostgreSQL on another machine that does not prove its name or does not encrypt")
	return cmd
}

func (c *cli) storeCopy(cmd *cobra.Command, from, to string, insecure bool) error {
	source, err := storePlace(cmd, "from", from, insecure)
	if err != nil {
		return err
	}
	target, err := storePlace(cmd, "to", to, insecure)
	if err != nil {
		return err
	}
	if source == target {
		return usagef("--from and --to are the same store")
	}
	result, err := server.CopyStore(cmd.Context(), source, target, func(r server.CopyReport) {
		if c.output == "table" && (r.Doing != "copy" || r.Entries > 0) {
			note(cmd, "%s", progressOf(&r))
		}
	})
	switch {
	case cmd.Context().Err() != nil:
		return errors.New("interrupted: run the same command again, which continues")
	case err != nil && authz.KindOf(err) == authz.KindUnavailable:
		return fmt.Errorf("%w: run the same command again, which continues", err)
	case err != nil:
		return err
	}
	note(cmd, "start servers on the copy only: servers on both stores would grant every quota twice")
	return c.show(cmd, result, func(t *table) {
		t.row("ENTRIES", "COPIED", "HASH")
		for _, s := range result.Sections {
			t.row(s.Name, fmt.Sprint(s.Entries), s.Hash[:16])
		}
		t.sentence("The copy is complete, and the same as its source.")
	})
}

func progressOf(r *server.CopyReport) string {
	switch r.Doing {
	case "index":
		return "all entries are written: building indexes"
	case "verify":
		return "verifying: reading both stores"
	}
	text := fmt.Sprintf("copied %d %s", r.Entries, r.Section)
	if r.Resumed {
		text += ", with those of an earlier run"
	}
	return text
}

// storePlace reads the name of a store.
func storePlace(cmd *cobra.Command, flag, name string, insecure bool) (server.StorePlace, error) {
	kind, rest, ok := strings.Cut(name, ":")
	p := server.StorePlace{Insecure: insecure}
	switch {
	case name == "":
		return p, usagef("give --%s, such as bolt:data or postgres:@owner.url", flag)
	case kind == "bolt" && rest != "":
		p.DataDir, p.Insecure = filepath.Clean(rest), false
		return p, nil
	case kind == "postgres" && strings.HasPrefix(rest, "@") && rest != "@":
		p.URLFile = rest[1:]
		return p, nil
	case kind == "postgres" && ok && rest == "":
		p.URL = "postgres://"
		return p, nil
	case (kind == "postgres" || kind == "postgresql") && strings.HasPrefix(rest, "//"):
		p.URL = name
	case kind == "postgres" && (strings.HasPrefix(rest, "postgres://") || strings.HasPrefix(rest, "postgresql://")):
		p.URL = rest
	default: // what is wrong may be a password
		return p, usagef("--%s: want bolt:DIR, postgres:@FILE with a URL in the file, or postgres:URL", flag)
	}
	if u, err := url.Parse(p.URL); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			note(cmd, "others on this machine can read the password in --%s: write the URL into a file, and give postgres:@FILE", flag)
		}
	}
	return p, nil
}
