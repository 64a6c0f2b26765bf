package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/decisionlog/audit"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Values of --unproven, as of on_crash in a plan.
const (
	refund  = "refund"
	forfeit = "forfeit"
)

// releaseOptions are the flags of quota release.
type releaseOptions struct {
	account, limit, node string
	margin, unproven     string
	yes                  bool
}

// released is what happens, or would happen, to what one node held of one bucket.
type released struct {
	admin.QuotaRelease
	Charged int64  `json:"charged"`           // by the node, according to its log
	Kept    int64  `json:"kept"`              // of the units: the end of the log may be missing
	Missing string `json:"missing,omitempty"` // why the logs prove nothing
	Done    bool   `json:"done"`
	Error   string `json:"error,omitempty"`
	decided bool   // proven, or to be done without proof
}

func (c *cli) quotaReleaseCmd() *cobra.Command {
	var o releaseOptions
	cmd := &cobra.Command{
		Use: "release [LOG...]", Short: "Give back stranded prepaid units that decision logs prove unspent",
		Long: `Give back the prepaid units that servers held when they died, as far as their decision logs
prove that they were not spent. Without --yes it shows what it would do.

Give all decision logs of the dead servers, with those that were rotated, compressed or not;
- is standard input. Charges are numbered, so a log with a gap proves nothing, and neither does
one from which accounts or keys were removed. Only its end can be missing without a trace: a
server that is killed loses the lines of its last milliseconds. So some units are kept (KEPT),
and count as spent: one charge, or what was charged within --margin before the end of the log
if that is more. If a machine failed, and not only the server, use --margin 1m.

Units that are released are settled for good: BACK comes back, the rest counts as spent. What
is not proven stays stranded, and the exit code is 1. Repeating the command is safe.`,
		Example: `  tollkeeper quota release decisions.log decisions.log.1.gz
  tollkeeper quota release --account acme --yes decisions.log`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, logs []string) error { return c.release(cmd, &o, logs) },
	}
	f := cmd.Flags()
	f.StringVar(&o.account, "account", "", "account with its keys and tokens; all if not given")
	f.StringVar(&o.limit, "limit", "", "name of a prepaid limit; all if not given")
	f.StringVar(&o.node, "node", "", "server that died, as in NODE of quota stranded; all if not given")
	f.StringVar(&o.margin, "margin", "1s", "how much of the end of a log may be missing, such as 1m; 0s gives all back")
	f.StringVar(&o.unproven, "unproven", "", "what to do with units if the logs prove nothing: refund or forfeit")
	f.BoolVar(&o.yes, "yes", false, "do it")
	return cmd
}

func (c *cli) release(cmd *cobra.Command, o *releaseOptions, logs []string) error {
	margin, err := o.parse(cmd, logs)
	if err != nil {
		return err
	}
	if o.limit != "" { // the server refuses limits that are not prepaid
		if _, err := c.stranded(cmd, "", o.limit); err != nil {
			return err
		}
	}
	all, err := c.stranded(cmd, "", "")
	if err != nil {
		return err
	}
	list, err := o.judge(all, logs, margin, cmd.InOrStdin())
	if err != nil {
		return err
	}
	if o.yes {
		c.releaseAll(cmd, list)
	}
	if err := c.show(cmd, list, func(t *table) { printReleased(t, list) }); err != nil {
		return err
	}
	return o.conclude(cmd, list)
}

func (o *releaseOptions) parse(cmd *cobra.Command, logs []string) (margin time.Duration, err error) {
	if err := notEmpty(cmd, "node", "margin", "unproven"); err != nil {
		return 0, err
	}
	if len(logs) == 0 && o.unproven == "" {
		return 0, usagef("give the decision logs of the servers that died, or say with --unproven what to do without them")
	}
	if o.unproven != "" && o.unproven != refund && o.unproven != forfeit {
		return 0, usagef("--unproven %q: want refund or forfeit", o.unproven)
	}
	return parseDuration("margin", o.margin)
}

// judge says what is to be done with what is stranded, as far as the flags ask for it. The logs are judged by everything that
// is stranded.
func (o *releaseOptions) judge(all []admin.Stranded, logs []string, margin time.Duration, stdin io.Reader) ([]released, error) {
	strandings := make([]quota.Stranding, len(all))
	for i := range all {
		strandings[i] = strandingOf(&all[i])
	}
	a := audit.New(strandings, margin)
	for _, name := range logs {
		if err := readLog(a, name, stdin); err != nil {
			return nil, err
		}
	}
	list := []released{}
	for i, f := range a.Findings() {
		s := &all[i]
		if !asked(o.account, s.Account) || !asked(o.limit, s.Limit) || !asked(o.node, string(s.Node)) {
			continue
		}
		r := released{Charged: f.Charged, Kept: f.Kept, Missing: f.Missing, decided: f.Missing == "" || o.unproven != ""}
		r.Stranded, r.Back = *s, f.Back
		if f.Missing != "" && o.unproven == refund {
			r.Back = s.Units
		}
		list = append(list, r)
	}
	return list, nil
}

// asked reports whether a flag asks for that name: for all if it is not given.
func asked(flag, name string) bool { return flag == "" || flag == name }

func strandingOf(s *admin.Stranded) quota.Stranding {
	b := quota.Bucket{Per: authz.Per(s.Per), Holder: s.Holder, Limit: s.Limit, Unit: s.Unit, Window: authz.WindowNone}
	return quota.Stranding{Bucket: b, Node: s.Node, Units: s.Units, Reported: s.Reported}
}

func readLog(a *audit.Audit, name string, stdin io.Reader) error {
	if name == "-" {
		if err := a.Read(stdin); err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := a.Read(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// releaseAll has the server do what was decided. What fails is noted, and the rest is done all the same.
func (c *cli) releaseAll(cmd *cobra.Command, list []released) {
	client, err := c.client(cmd)
	for i := range list {
		r := &list[i]
		if !r.decided {
			continue
		}
		if err == nil {
			one := client.Do(cmd.Context(), "POST", admin.Path("quota", "release"), r.QuotaRelease, nil)
			if r.Done = one == nil; one != nil {
				r.Error = one.Error()
			}
		} else {
			r.Error = err.Error()
		}
	}
}

func printReleased(t *table, list []released) {
	if len(list) == 0 {
		t.sentence("Nothing is stranded.")
		return
	}
	t.row("ACCOUNT", "HOLDER", "LIMIT", "NODE", "UNITS", "REPORTED", "CHARGED", "KEPT", "BACK", "STATE")
	sums := make(map[string]*released)
	for i := range list {
		r := &list[i]
		t.row(r.Account, holderName(&r.Stranded), r.Limit, string(r.Node), fmt.Sprint(r.Units), fmt.Sprint(r.Reported),
			fmt.Sprint(r.Charged), fmt.Sprint(r.Kept), fmt.Sprint(r.Back), r.state())
		sum := sums[r.Limit]
		if sum == nil {
			sum = new(released)
			sums[r.Limit] = sum
		}
		sum.Units, sum.Reported, sum.Charged = sum.Units+r.Units, sum.Reported+r.Reported, sum.Charged+r.Charged
		sum.Kept, sum.Back = sum.Kept+r.Kept, sum.Back+r.Back
	}
	for _, limit := range slices.Sorted(maps.Keys(sums)) {
		sum := sums[limit]
		t.row("total", "", limit, "", fmt.Sprint(sum.Units), fmt.Sprint(sum.Reported), fmt.Sprint(sum.Charged), fmt.Sprint(sum.Kept), fmt.Sprint(sum.Back), "")
	}
}

// state is one word on what happened, or would happen.
func (r *released) state() string {
	switch {
	case r.Error != "":
		return "failed"
	case r.Done:
		return "released"
	case r.Missing == "":
		return "proven"
	case r.decided:
		return "unproven"
	}
	return "stranded"
}

// conclude says what is left to do, and returns errSaid if something stays stranded.
func (o *releaseOptions) conclude(cmd *cobra.Command, list []released) error {
	decided, stays := false, false
	said := make(map[string]bool)
	for i := range list {
		r := &list[i]
		text := ""
		switch {
		case r.Error != "":
			text = fmt.Sprintf("%s of %s %q, node %s: %s", r.Limit, r.Per, r.Holder, r.Node, r.Error)
		case !r.decided:
			text = fmt.Sprintf("node %s: %s", r.Node, r.Missing)
		default:
			decided = true
			continue
		}
		stays = true
		if !said[text] {
			said[text] = true
			note(cmd, "%s", text)
		}
	}
	if decided && !o.yes {
		note(cmd, "nothing is changed: to give back what BACK says, repeat the command with --yes")
	}
	if stays {
		note(cmd, "some units stay stranded: give the logs that are missing, or decide with --unproven")
		return errSaid
	}
	return nil
}
