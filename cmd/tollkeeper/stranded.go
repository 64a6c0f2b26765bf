package main

import (
	"fmt"
	"maps"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// strandedList is what is stranded, and the sums of each limit.
type strandedList struct {
	Stranded []admin.Stranded `json:"stranded"`
	Totals   []strandedTotal  `json:"totals"`
}

type strandedTotal struct {
	Limit    string `json:"limit"`
	Units    int64  `json:"units"`
	Reported int64  `json:"reported"`
}

func (c *cli) quotaStrandedCmd() *cobra.Command {
	var account, limit string
	cmd := &cobra.Command{
		Use: "stranded", Short: "List prepaid units that servers held when they died", Args: args(),
		Long: `List prepaid units that servers held when they died, by account. They stay charged until
they are released: a server may have spent them without reporting it. REPORTED is what it had
reported before. The units of other limits come back when their period ends.`,
		Example: "  tollkeeper quota stranded\n  tollkeeper quota stranded --account acme",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.stranded(cmd, account, limit)
			if err != nil {
				return err
			}
			out := strandedList{Stranded: list, Totals: totals(list)}
			return c.show(cmd, out, func(t *table) { printStranded(t, &out) })
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "account with its keys and tokens; all if not given")
	cmd.Flags().StringVar(&limit, "limit", "", "name of a prepaid limit; all if not given")
	return cmd
}

// stranded asks the server what is stranded. It refuses flags that are empty: "all" must be meant.
func (c *cli) stranded(cmd *cobra.Command, account, limit string) (list []admin.Stranded, err error) {
	if err := notEmpty(cmd, "account", "limit"); err != nil {
		return nil, err
	}
	query := url.Values{"account": {account}, "limit": {limit}}
	return list, c.do(cmd, "GET", admin.Path("quota", "stranded")+"?"+query.Encode(), nil, &list)
}

// totals sums up each limit.
func totals(list []admin.Stranded) []strandedTotal {
	sums := make(map[string]*strandedTotal)
	for i := range list {
		s := &list[i]
		if sums[s.Limit] == nil {
			sums[s.Limit] = &strandedTotal{Limit: s.Limit}
		}
		sums[s.Limit].Units += s.Units
		sums[s.Limit].Reported += s.Reported
	}
	out := []strandedTotal{}
	for _, limit := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, *sums[limit])
	}
	return out
}

func printStranded(t *table, out *strandedList) {
	if len(out.Stranded) == 0 {
		t.sentence("Nothing is stranded.")
		return
	}
	t.row("ACCOUNT", "HOLDER", "LIMIT", "NODE", "UNITS", "REPORTED")
	for i := range out.Stranded {
		s := &out.Stranded[i]
		t.row(s.Account, holderName(s), s.Limit, string(s.Node), fmt.Sprint(s.Units), fmt.Sprint(s.Reported))
	}
	for _, sum := range out.Totals {
		t.row("total", "", sum.Limit, "", fmt.Sprint(sum.Units), fmt.Sprint(sum.Reported))
	}
}

// holderName is who holds the units, "" if it is the account itself.
func holderName(s *admin.Stranded) string {
	if s.Per == "account" {
		return ""
	}
	return short(s.Holder)
}
