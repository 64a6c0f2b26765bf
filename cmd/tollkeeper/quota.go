package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

func (c *cli) quotaCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "quota", Short: "Show and change the quotas of keys and accounts"}
	cmd.AddCommand(readOnly(c.quotaShowCmd()), c.quotaCreditCmd(), c.quotaResetCmd(), readOnly(c.quotaStrandedCmd()), c.quotaReleaseCmd())
	return group(cmd)
}

// holder is the flags that name the holder of a quota.
type holder struct{ admin.QuotaHolder }

func (h *holder) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.Key, "key", "", "holder of the quotas: the id of a key, or the key itself")
	cmd.Flags().StringVar(&h.Account, "account", "", "account with the shared quotas")
	cmd.Flags().StringVar(&h.Plan, "plan", "", "with --account: plan that its tokens name")
	cmd.Flags().StringVar(&h.Issuer, "issuer", "", "with --account: issuer of the subject or client")
	cmd.Flags().StringVar(&h.Subject, "subject", "", "with --account and --issuer: subject with the quotas")
	cmd.Flags().StringVar(&h.Client, "client", "", "with --account and --issuer: client with the quotas, for tokens without a subject")
}

func (h *holder) resolve(c *cli, cmd *cobra.Command) (err error) {
	if (h.Key == "") == (h.Account == "") {
		return usagef("give --key or --account")
	}
	if h.Key != "" {
		h.Key, err = c.keyID(cmd, h.Key)
	}
	return err
}

func (h *holder) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{
		"key": h.Key, "account": h.Account, "plan": h.Plan, "issuer": h.Issuer, "subject": h.Subject, "client": h.Client,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

func (c *cli) quotaShowCmd() *cobra.Command {
	var h holder
	cmd := &cobra.Command{
		Use: "show", Short: "Show every limit with its spent and remaining units", Args: args(),
		Example: "  tollkeeper quota show --account acme\n  tollkeeper quota show --key key_00000000000000000000",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := h.resolve(c, cmd); err != nil {
				return err
			}
			var list []admin.Quota
			if err := c.do(cmd, "GET", admin.Path("quota")+"?"+h.query().Encode(), nil, &list); err != nil {
				return err
			}
			return c.show(cmd, list, func(t *table) { quotas(t, list) })
		},
	}
	h.flags(cmd)
	return cmd
}

func quotas(t *table, list []admin.Quota) {
	t.row("LIMIT", "PER", "WINDOW", "ALLOWANCE", "SPENT", "REMAINING", "OUTSTANDING", "STRANDED", "RESETS")
	for _, q := range list {
		var held int64
		for _, n := range q.Outstanding {
			held += n
		}
		t.row(q.Limit, q.Per, q.Window, fmt.Sprint(q.Allowance), fmt.Sprint(q.Spent), fmt.Sprint(q.Remaining),
			fmt.Sprint(held), fmt.Sprint(q.Stranded), when(q.ResetsAt))
	}
}

func (c *cli) quotaCreditCmd() *cobra.Command {
	var h holder
	var in admin.QuotaChange
	cmd := &cobra.Command{
		Use: "credit", Short: "Add units to a limit",
		Long: `Add units to the balance of a prepaid limit, or to the current period of any other limit.
Limits per second and minute start over by themselves, and are not credited.`,
		Example: "  tollkeeper quota credit --account acme --limit credits --units 100 --id order-17",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.Units < 1 {
				return usagef("give the number of units to add, such as --units 100")
			}
			return c.changeQuota(cmd, "credit", &h, in)
		},
	}
	h.flags(cmd)
	changeFlags(cmd, &in)
	cmd.Flags().Int64Var(&in.Units, "units", 0, "units to add")
	return cmd
}

func (c *cli) quotaResetCmd() *cobra.Command {
	var h holder
	var in admin.QuotaChange
	cmd := &cobra.Command{
		Use: "reset", Short: "Forgive the units spent in the current period", Args: args(),
		Long: `Forgive the units spent in the current period. Prepaid limits have no period: credit them.
Limits per second and minute start over by themselves, and are not reset.`,
		Example: "  tollkeeper quota reset --account acme --limit daily",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.changeQuota(cmd, "reset", &h, in) },
	}
	h.flags(cmd)
	changeFlags(cmd, &in)
	return cmd
}

func changeFlags(cmd *cobra.Command, in *admin.QuotaChange) {
	cmd.Flags().StringVar(&in.Limit, "limit", "", "name of the limit")
	cmd.Flags().StringVar(&in.ID, "id", "", "idempotency key: a repeated command with the same id changes nothing")
	cmd.Flags().StringVar(&in.Note, "note", "", "why, for the record")
}

func (c *cli) changeQuota(cmd *cobra.Command, verb string, h *holder, in admin.QuotaChange) error {
	if err := h.resolve(c, cmd); err != nil {
		return err
	}
	if in.Limit == "" {
		return usagef("give the name of the limit, such as --limit credits")
	}
	if in.ID == "" {
		in.ID = "cli-" + rand.Text()
	}
	in.QuotaHolder = h.QuotaHolder
	var q admin.Quota
	if err := c.do(cmd, "POST", admin.Path("quota", verb), in, &q); err != nil {
		if refused := (*admin.Refused)(nil); !errors.As(err, &refused) || refused.Status >= 500 {
			return fmt.Errorf("%w: the change may have been made: repeat the command with --id %s", err, in.ID)
		}
		return err
	}
	return c.show(cmd, q, func(t *table) { quotas(t, []admin.Quota{q}) })
}
