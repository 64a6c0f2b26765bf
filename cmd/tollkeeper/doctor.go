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
		Use: "doctor [FILE...]", Short: "Check that all is well, and say how to mend what is not",
		Long: `Check configurations of Envoy, Istio, Envoy Gateway and Tollkeeper: whatever each file
turns out to be. A folder is read with all YAML and JSON in it, - is standard input.

  tollkeeper doctor envoy.yaml                            a bootstrap file
  tollkeeper doctor envoy --admin http://127.0.0.1:9901   a running Envoy
  kubectl kustomize overlay | tollkeeper doctor -         objects for a cluster
  tollkeeper doctor config -c tollkeeper.yaml             this machine's own server
  tollkeeper doctor ledger                                the data file
  tollkeeper doctor rules                                 what is looked for

` + exitCodes,
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
		c.doctorEnvoyCmd(), c.doctorFilesCmd(lint.IstioSubject, "Istio: mesh configuration, AuthorizationPolicy, DestinationRule, EnvoyFilter, Service"),
		c.doctorFilesCmd(lint.EGSubject, "Envoy Gateway: SecurityPolicy, traffic policies, EnvoyPatchPolicy, or what egctl x translate prints"),
		c.doctorConfigCmd(), c.doctorLedgerCmd(), c.doctorRulesCmd(),
	)
	return cmd
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
			if c.dataDir = c.ledgerDir(cmd); c.dataDir == "" {
				return report, errors.New("no data directory found: name one with --data-dir")
			}
		}
		// A server without a file keeps everything in memory, and says so.
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
	var mend []string // one sentence each, though it may mend several
	for _, f := range r.Findings {
		if f.Remedy != "" && !strings.Contains(strings.Join(mend, "\n"), f.Remedy) {
			mend = append(mend, f.Remedy)
		}
	}
	for _, m := range mend {
		t.line(m)
	}
}
