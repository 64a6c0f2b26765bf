package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

func (c *cli) doctorCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", Short: "Check that all is well, and say how to mend what is not"}
	cmd.AddCommand(c.doctorLedgerCmd())
	return group(cmd)
}

func (c *cli) doctorLedgerCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ledger", Short: "Check the data file: every sum, every index, every page",
		Long: `Check the data file: that in every book granted = spent + outstanding + stranded +
returned, that nobody was granted more than allowed, that every key has its account and
is found by its digest, that no page is damaged. Nothing is changed.

While a server runs on the data directory, it is asked. Otherwise the file is read here,
and no server can start on it meanwhile. The exit code is 1 if anything is wrong.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := c.checkLedger(cmd)
			if err != nil {
				return err
			}
			if err := c.show(cmd, report, func(t *table) { findings(t, report) }); err != nil {
				return err
			}
			if !report.OK {
				return errSaid
			}
			return nil
		},
	}
}

// checkLedger has the server check the file that it has open, or checks it here if none has.
func (c *cli) checkLedger(cmd *cobra.Command) (report doctor.Report, err error) {
	if c.address == "" {
		if c.dataDir == "" {
			c.dataDir = findDir(func(dir string) bool { return runs(dir) || server.HasLedger(dir) })
		}
		if c.dataDir == "" {
			return report, errors.New("no data directory found: name one with --data-dir")
		}
		// The lock on the file tells, and not the address of the server, which one that crashed leaves behind. A server
		// without a file keeps everything in memory, and says so.
		if !runs(c.dataDir) || server.HasLedger(c.dataDir) {
			if report, err = server.CheckLedger(cmd.Context(), c.dataDir); !errors.Is(err, server.ErrRunning) {
				return report, err
			}
		}
	}
	return report, c.do(cmd, "GET", admin.Path("doctor", "ledger"), nil, &report)
}

// runs reports whether a server left word that it runs on a data directory. One that crashed leaves it too.
func runs(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, admin.AddressFile))
	return err == nil
}

func findings(t *table, r doctor.Report) {
	for _, f := range r.Findings {
		switch f.State {
		case doctor.StateOK:
			t.row(string(f.State), f.Check, f.Looks)
		default:
			t.row(string(f.State), f.Check, f.Wrong)
		}
	}
	var mend []string // one sentence each, though it may mend several
	for _, f := range r.Findings {
		if f.Mend != "" && !strings.Contains(strings.Join(mend, "\n"), f.Mend) {
			mend = append(mend, f.Mend)
		}
	}
	for _, m := range mend {
		t.line(m)
	}
}
