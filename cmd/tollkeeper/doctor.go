package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

func (c *cli) doctorCmd() *cobra.Command {
	var o judgeOptions
	cmd := &cobra.Command{
		Use: "doctor [FILE...]", Short: "Find faults in configurations and data, with the remedy for each",
		Long: `Check configurations of Envoy, Istio, Envoy Gateway and Tollkeeper, and its tables of
routes. The kind of each file is recognised. In a directory, all YAML and JSON files are
read; - is standard input. Envoy's routes are compared with the table that is given too.

` + exitCodes,
		Example: `  # A bootstrap file of Envoy, a running Envoy, objects for a cluster.
  tollkeeper doctor envoy.yaml
  tollkeeper doctor envoy --admin http://127.0.0.1:9901
  kubectl kustomize overlay | tollkeeper doctor -

  # What the routes of your policies leave open, and where Envoy's routes do not meet them.
  tollkeeper doctor envoy.yaml mypolicies

  # The configuration and the data of the server on this machine.
  tollkeeper doctor config -c tollkeeper.yaml
  tollkeeper doctor ledger`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, paths []string) error {
			if len(paths) == 0 {
				return cmd.Help()
			}
			if _, err := os.Stat(paths[0]); err != nil && len(paths) == 1 && paths[0] != "-" {
				cmd.SuggestionsMinimumDistance = 2
				if near := cmd.SuggestionsFor(paths[0]); len(near) > 0 {
					return usagef("there is no file or command %q: did you mean %s %s?", paths[0], cmd.CommandPath(), near[0])
				}
			}
			return c.judge(cmd, &o, lint.AnySubject, paths)
		},
	}
	o.flags(cmd)
	cmd.AddCommand(
		c.doctorEnvoyCmd(), c.doctorIstioCmd(), c.doctorGatewayCmd(), c.doctorConfigCmd(), c.doctorLedgerCmd(), c.doctorRulesCmd(),
	)
	return cmd
}

func (c *cli) doctorLedgerCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ledger", Short: "Check every sum, index and page of the data file",
		Long: `Check the data file and its write-ahead log: in every book granted = spent + outstanding
+ stranded + returned, no grant exceeds its limit, every key has an account and is found by
its digest, no page is damaged. The check changes nothing.

If a server runs on the data directory, it makes the check. Otherwise the file is read
here, and no server can start on it meanwhile. The exit code is 1 if anything is wrong.`,
		Example: "  tollkeeper doctor ledger\n  tollkeeper doctor ledger --data-dir /var/lib/tollkeeper",
		Args:    args(),
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

// checkLedger asks the server that has the file open to check it. If there is none, it checks the file itself.
func (c *cli) checkLedger(cmd *cobra.Command) (report doctor.Report, err error) {
	if c.address == "" {
		if c.dataDir == "" {
			if c.dataDir = c.ledgerDir(cmd); c.dataDir == "" {
				return report, errors.New("no data directory found: give one with --data-dir")
			}
		}
		// A server without a file keeps everything in memory. It is asked all the same, and says so.
		if !runs(c.dataDir) || server.HasLedger(c.dataDir) {
			if report, err = server.CheckLedger(cmd.Context(), c.dataDir); !errors.Is(err, server.ErrRunning) {
				return report, err
			}
		}
	}
	return report, c.do(cmd, "GET", admin.Path("doctor", "ledger"), nil, &report)
}

func findings(t *table, r doctor.Report) {
	for _, f := range r.Findings {
		switch f.State {
		case doctor.StateOK:
			t.row(string(f.State), f.Check, f.Claim)
		default:
			t.row(string(f.State), f.Check, f.Wrong)
		}
	}
	var remedies []string // without duplicates
	for _, f := range r.Findings {
		if f.Remedy != "" && !strings.Contains(strings.Join(remedies, "\n"), f.Remedy) {
			remedies = append(remedies, f.Remedy)
		}
	}
	for _, text := range remedies {
		t.line(text)
	}
}
