package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

func (c *cli) accountCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Manage accounts, which own keys and pay for them"}
	cmd.AddCommand(
		c.accountCreateCmd(), readOnly(c.accountListCmd()), readOnly(c.accountShowCmd()), c.accountUpdateCmd(),
		c.accountStatusCmd("suspend", "suspended", "Refuse all keys of an account (403 account_suspended)"),
		c.accountStatusCmd("overdue", "overdue", "Refuse all keys of an account until it pays (402 payment_overdue)"),
		c.accountStatusCmd("resume", "active", "Accept the keys of an account again"),
		c.accountRevokeCmd(),
	)
	return group(cmd)
}

func (c *cli) accountCreateCmd() *cobra.Command {
	var in admin.AccountCreate
	var metaPairs []string
	cmd := &cobra.Command{
		Use: "create ID", Short: "Create an account", Args: args("an id for the account, such as acme"),
		Example: `  tollkeeper account create acme --plan free
  tollkeeper account create acme --plan pro --name "Acme Inc." --meta tier=2`,
		RunE: func(cmd *cobra.Command, a []string) (err error) {
			in.ID = a[0]
			if in.Meta, err = pairs("meta", metaPairs); err != nil {
				return err
			}
			return c.oneAccount(cmd, "POST", admin.Path("accounts"), in)
		},
	}
	cmd.Flags().StringVar(&in.Plan, "plan", "", "plan of the keys without a plan of their own")
	cmd.Flags().StringVar(&in.Name, "name", "", "name for people")
	cmd.Flags().StringArrayVar(&metaPairs, "meta", nil, "name=value that policies can read (repeatable)")
	return cmd
}

func (c *cli) accountUpdateCmd() *cobra.Command {
	var name, plan string
	var set, unset []string
	cmd := &cobra.Command{
		Use: "update ID", Short: "Change an account", Args: args("the id of the account"),
		Example: `  tollkeeper account update acme --plan pro
  tollkeeper account update acme --meta tier=2 --unset owner`,
		RunE: func(cmd *cobra.Command, a []string) (err error) {
			var in admin.AccountUpdate
			if cmd.Flags().Changed("name") {
				in.Name = &name
			}
			if cmd.Flags().Changed("plan") {
				in.Plan = &plan
			}
			if in.Meta, err = metaPatch(set, unset); err != nil {
				return err
			}
			if in.Name == nil && in.Plan == nil && in.Meta == nil {
				return usagef("nothing to change: give --name, --plan, --meta or --unset")
			}
			return c.oneAccount(cmd, "PATCH", admin.Path("accounts", a[0]), in)
		},
	}
	cmd.Flags().StringVar(&plan, "plan", "", "plan of the keys without a plan of their own")
	cmd.Flags().StringVar(&name, "name", "", "name for people")
	metaFlags(cmd.Flags(), &set, &unset)
	return cmd
}

func (c *cli) accountStatusCmd(verb, status, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Example: "  tollkeeper account " + verb + " acme", Args: args("the id of the account"),
		RunE: func(cmd *cobra.Command, a []string) error {
			var out admin.Account
			if err := c.do(cmd, "PATCH", admin.Path("accounts", a[0]), admin.AccountUpdate{Status: &status}, &out); err != nil {
				return err
			}
			if status == "active" && !out.RevokedBefore.IsZero() {
				note(cmd, "its keys from before %s stay revoked: create new ones with: tollkeeper key create --account %s", when(out.RevokedBefore), out.ID)
			}
			return c.showAccount(cmd, out)
		},
	}
}

func (c *cli) accountShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show an account", Example: "  tollkeeper account show acme", Args: args("the id of the account"),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.oneAccount(cmd, "GET", admin.Path("accounts", a[0]), nil)
		},
	}
}

func (c *cli) accountListCmd() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List accounts", Example: "  tollkeeper account list", Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := listAll(c, cmd, admin.Path("accounts"), url.Values{}, limit, func(a admin.Account) string { return a.ID })
			if err != nil {
				return err
			}
			return c.show(cmd, list, func(t *table) {
				t.row("ID", "STATUS", "PLAN", "NAME", "CREATED")
				for _, a := range list {
					t.row(a.ID, a.Status, a.Plan, short(a.Name), when(a.CreatedAt))
				}
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 1000, "most accounts to list")
	return cmd
}

func (c *cli) accountRevokeCmd() *cobra.Command {
	var cause string
	var unregistered bool
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "Revoke all keys and tokens that an account has now, for good",
		Long:    "Revoke all keys and tokens that an account has now, for good. Later ones work.",
		Example: "  tollkeeper account revoke acme --cause \"laptop stolen\"",
		Args:    args("the id of the account"),
		RunE: func(cmd *cobra.Command, a []string) error {
			var out admin.Revoked
			if err := c.do(cmd, "POST", admin.Path("accounts", a[0], "revoke"), map[string]any{"cause": cause, "unregistered": unregistered}, &out); err != nil {
				return err
			}
			return c.show(cmd, out, func(t *table) {
				t.sentence("All keys and tokens that account %q had at %s are revoked.", out.ID, when(out.At))
			})
		},
	}
	cmd.Flags().StringVar(&cause, "cause", "", "why, for the record")
	cmd.Flags().BoolVar(&unregistered, "unregistered", false, "accept an account that only tokens name")
	return cmd
}

func (c *cli) oneAccount(cmd *cobra.Command, method, path string, in any) error {
	var a admin.Account
	if err := c.do(cmd, method, path, in, &a); err != nil {
		return err
	}
	return c.showAccount(cmd, a)
}

func (c *cli) showAccount(cmd *cobra.Command, a admin.Account) error {
	return c.show(cmd, a, func(t *table) {
		t.field("id", a.ID)
		t.field("name", a.Name)
		t.field("status", a.Status)
		t.field("plan", a.Plan)
		t.field("meta", meta(a.Meta))
		t.field("created", when(a.CreatedAt))
		t.field("revoked before", when(a.RevokedBefore))
	})
}

// listAll reads page after page, and notes if the limit cuts the list.
func listAll[T any](c *cli, cmd *cobra.Command, path string, query url.Values, limit int, id func(T) string) ([]T, error) {
	if limit < 1 {
		return nil, usagef("--limit %d: want 1 or more", limit)
	}
	const pageSize = 1000
	all := []T{}
	for len(all) <= limit { // one more than is shown, to know whether there are more
		want := min(pageSize, limit+1-len(all))
		query.Set("limit", fmt.Sprint(want))
		var page []T
		if err := c.do(cmd, "GET", path+"?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < want {
			return all, nil
		}
		query.Set("after", id(page[len(page)-1]))
	}
	note(cmd, "there are more than these %d: raise --limit to list them", limit)
	return all[:limit], nil
}
