package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

// storeOptions are the flags of all commands for a shared store.
type storeOptions struct {
	config  string
	urlFile string
}

func (c *cli) storeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "store", Short: "Prepare, inspect and fill the PostgreSQL database that servers share",
		Long: `Prepare and inspect the PostgreSQL database of store.postgres in the configuration, and copy
stores. These commands talk to the database, not to a server.`,
	}
	cmd.AddCommand(c.storeMigrateCmd(), readOnly(c.storeStatusCmd()), c.storeAdoptCmd(), c.storeCopyCmd())
	return group(cmd)
}

func (o *storeOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.config, "config", "c", os.Getenv("TOLLKEEPER_CONFIG"), "configuration file")
	cmd.Flags().StringVar(&o.urlFile, "url-file", "", "file with the URL of the database, in place of the configured one")
}

// load reads the configuration as serve does.
func (c *cli) load(cmd *cobra.Command, o *storeOptions) (config.Config, error) {
	if err := notEmpty(cmd, "config", "url-file"); err != nil {
		return config.Config{}, err
	}
	cfg, err := config.Load(o.config)
	if err != nil {
		return cfg, err
	}
	if cmd.Flags().Changed("data-dir") {
		cfg.DataDir = c.dataDir
	}
	if o.urlFile != "" {
		cfg.Store.Kind, cfg.Store.Postgres.URLFile, cfg.Store.Postgres.URL = config.StorePostgres, o.urlFile, ""
	}
	return cfg, nil
}

func (c *cli) storeMigrateCmd() *cobra.Command {
	var o storeOptions
	var grantTo string
	var print bool
	var from int
	cmd := &cobra.Command{
		Use: "migrate", Short: "Create the schema, or bring it up to date",
		Long: `Create the schema "tollkeeper" in the database, or bring it up to date. Do it before servers
of a newer version start: servers never do it. Older servers continue to run meanwhile, and
until they are replaced. Nothing happens if the schema is up to date.

Two roles are enough. One owns the schema, and runs this command: it may create schemas in
the database, or the schema exists and belongs to it. The other one is for the servers, and
gets its privileges with --grant-to: it reads and writes rows, and owns nothing.

With --print the SQL is printed, for psql, and no database is needed.`,
		Example: `  # The owner's URL is in a file of its own.
  tollkeeper store migrate -c tollkeeper.yaml --url-file owner.url --grant-to tollkeeper

  # What a DBA can read first, and run.
  tollkeeper store migrate --print --grant-to tollkeeper`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd, "grant-to"); err != nil {
				return err
			}
			if print {
				sql, err := server.MigrationSQL(from, grantTo)
				if err == nil {
					_, err = fmt.Fprint(cmd.OutOrStdout(), sql)
				}
				return err
			}
			if cmd.Flags().Changed("from") {
				return usagef("--from needs --print: otherwise the database says what it has")
			}
			cfg, err := c.load(cmd, &o)
			if err != nil {
				return err
			}
			m, err := server.MigrateStore(cmd.Context(), cfg, grantTo)
			if err != nil {
				return err
			}
			return c.show(cmd, m, func(t *table) { printMigration(t, &m) })
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&grantTo, "grant-to", "", "role that gets the privileges of a server, such as tollkeeper")
	cmd.Flags().BoolVar(&print, "print", false, "print the SQL and change nothing")
	cmd.Flags().IntVar(&from, "from", 0, "with --print, the version of the schema that is there, 0 for none")
	return cmd
}

func printMigration(t *table, m *server.Migration) {
	switch m.Before {
	case m.After:
		t.sentence("The schema is up to date: version %d.", m.After)
	case 0:
		t.sentence("The schema is created: version %d.", m.After)
	default:
		t.sentence("The schema is brought from version %d to version %d.", m.Before, m.After)
	}
	t.field("installation", m.Installation)
}

func (c *cli) storeStatusCmd() *cobra.Command {
	var o storeOptions
	cmd := &cobra.Command{
		Use: "status", Short: "Show version, installation and rows of the database",
		Long: `Show the version of the schema, the id of the installation, the incarnation of the database
and the number of rows. The incarnation changes when a standby takes over or a backup is
restored. Counting reads all tables once.`,
		Example: "  tollkeeper store status -c tollkeeper.yaml",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load(cmd, &o)
			if err != nil {
				return err
			}
			s, err := server.ReadStoreStatus(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return c.show(cmd, s, func(t *table) { printStore(t, &s) })
		},
	}
	o.flags(cmd)
	return cmd
}

func printStore(t *table, s *server.StoreStatus) {
	t.field("PostgreSQL", s.Server)
	t.field("schema", fmt.Sprint(s.Schema))
	t.field("installation", s.Installation)
	if s.Filling {
		t.field("state", "an unfinished copy of another store: run tollkeeper store copy again")
	}
	if s.Served != s.Installation {
		t.field("served here", s.Served)
	}
	t.field("incarnation", s.Incarnation)
	t.field("revision", fmt.Sprint(s.Revision))
	for _, name := range server.StoreTables() {
		t.field(name, fmt.Sprint(s.Rows[name]))
	}
}

// adoption is the answer of store adopt.
type adoption struct {
	Installation string `json:"installation"`
	Before       string `json:"before,omitempty"` // the one that this node served
}

func (c *cli) storeAdoptCmd() *cobra.Command {
	var o storeOptions
	cmd := &cobra.Command{
		Use: "adopt", Short: "Serve another installation than before from this data directory",
		Long: `Let the server with this data directory serve the installation that is in the database now.

A server remembers in its data directory which installation it serves, and refuses every
other one: an empty database in its place would grant every quota again, and know no
revocation. After a database was replaced on purpose, run this for each data directory and
start the servers again.`,
		Example: "  tollkeeper store adopt -c tollkeeper.yaml",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load(cmd, &o)
			if err != nil {
				return err
			}
			now, before, err := server.AdoptStore(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if runs(cfg.DataDir) && now != before {
				note(cmd, "the server that runs on %s still serves installation %s: start it again", cfg.DataDir, before)
			}
			return c.show(cmd, adoption{now, before}, func(t *table) {
				if now == before {
					t.sentence("Installation %s is served already.", now)
					return
				}
				t.sentence("The server on %s serves installation %s from its next start on.", cfg.DataDir, now)
			})
		},
	}
	o.flags(cmd)
	return cmd
}
