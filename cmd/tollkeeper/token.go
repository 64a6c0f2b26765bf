package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

func (c *cli) tokenCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Bearer tokens: what they are worth, and who is cut off"}
	cmd.AddCommand(c.tokenRevokeCmd(), reading(c.tokenListCmd()), reading(c.tokenInspectCmd()))
	return group(cmd)
}

// tokenText is a token that was given as an argument, or on standard input for "-", where no history keeps it.
func tokenText(cmd *cobra.Command, arg string) (string, error) {
	if arg != "-" {
		return strings.TrimSpace(arg), nil
	}
	raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
	if err == nil && strings.TrimSpace(string(raw)) == "" {
		return "", usagef("there is no token on standard input")
	}
	return strings.TrimSpace(string(raw)), err
}

// what are the flags that say which tokens are revoked, by the kind of the record.
var what = []struct{ flag, kind, usage string }{
	{"jti", "jti", "the token with that jti"},
	{"sid", "sid", "all tokens of that session"},
	{"sub", "sub", "all tokens that the subject was issued until now"},
	{"client", "client", "all tokens that the client was issued until now"},
	{"signing-key", "signing_key", "all tokens that were signed with the key of that kid"},
	{"suspend", "suspension", "all tokens of the subject, also those to come, until the suspension is lifted"},
	{"lift", "suspension", "nobody: ends the suspension of the subject"},
}

func (c *cli) tokenRevokeCmd() *cobra.Command {
	var in admin.TokenRevoke
	var before string
	values := make([]string, len(what))
	cmd := &cobra.Command{
		Use: "revoke [TOKEN]", Short: "Revoke a token, or all that have something in common",
		Long: "Revoke a token (- reads it from standard input), or all tokens that the flags say. It is in force, and on disk, when the\ncommand returns. The clocks of issuers may be ahead by tokens.skew (30s): with --sub and --client, who signs in again within\nthat time may have to do so once more.",
		RunE: func(cmd *cobra.Command, a []string) (err error) {
			given := len(a)
			for i, w := range what {
				if cmd.Flags().Changed(w.flag) {
					given++
					in.Kind, in.Value, in.Lift = w.kind, values[i], w.flag == "lift"
				}
			}
			if given != 1 {
				return usagef("give a token, or one of --jti, --sid, --sub, --client, --signing-key, --suspend and --lift")
			}
			if len(a) == 1 {
				if in.Token, err = tokenText(cmd, a[0]); err != nil {
					return err
				}
			}
			if before != "" {
				if in.Kind != "sub" && in.Kind != "client" {
					return usagef("--before goes with --sub and --client")
				}
				if in.Before, err = parseTime("before", before, endOfDay); err != nil {
					return err
				}
				if now := time.Now(); before == now.Format(time.DateOnly) {
					in.Before = now // tokens of the rest of the day were not issued yet
				}
			}
			var out admin.Revoked
			if err := c.do(cmd, "POST", admin.Path("tokens", "revoke"), in, &out); err != nil {
				return err
			}
			return c.show(cmd, out, func(t *table) { t.line(revokedLine(&in, &out)) })
		},
	}
	f := cmd.Flags()
	for i, w := range what {
		f.StringVar(&values[i], w.flag, "", w.usage)
	}
	f.StringVar(&in.Issuer, "issuer", "", "whose tokens are meant; not needed where only one issuer is configured")
	f.StringVar(&before, "before", "", "with --sub and --client: only tokens whose iat is not later, a date included, instead of all until now")
	f.StringVar(&in.Cause, "cause", "", "why, for the record")
	return cmd
}

func revokedLine(in *admin.TokenRevoke, out *admin.Revoked) string {
	switch {
	case in.Token != "":
		return "The token is revoked."
	case in.Lift:
		return fmt.Sprintf("The suspension of %s is lifted.", printable(out.ID))
	case in.Kind == "suspension":
		return fmt.Sprintf("%s is suspended.", printable(out.ID))
	}
	return fmt.Sprintf("Tokens with the %s %s are revoked.", strings.ReplaceAll(out.Kind, "_", " "), printable(out.ID))
}

func (c *cli) tokenListCmd() *cobra.Command {
	var after uint64
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List what is revoked, keys and accounts too, the earliest change first", Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"after": {fmt.Sprint(after)}, "limit": {fmt.Sprint(limit)}}
			var list []admin.Revocation
			if err := c.do(cmd, "GET", admin.Path("revocations")+"?"+query.Encode(), nil, &list); err != nil {
				return err
			}
			if n := len(list); n > 0 && n == limit {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "tollkeeper: there may be more than these %d: list on with --after %d\n", n, list[n-1].Revision)
			}
			return c.show(cmd, list, func(t *table) {
				t.row("REVISION", "KIND", "VALUE", "ISSUER", "UNTIL", "AT", "KEPT UNTIL", "CAUSE")
				for _, r := range list {
					kind := r.Kind
					if r.Lifted {
						kind += " (lifted)"
					}
					t.row(fmt.Sprint(r.Revision), kind, r.Value, r.Issuer, when(r.Before), when(r.At), when(r.ExpiresAt), short(r.Cause))
				}
			})
		},
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "begin behind that revision")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many, up to 1000")
	return cmd
}

func (c *cli) tokenInspectCmd() *cobra.Command {
	return &cobra.Command{
		Use: "inspect TOKEN", Short: "Say what a token is worth, and what it claims", Args: args("TOKEN, or - to read it from standard input"),
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := tokenText(cmd, a[0])
			if err != nil {
				return err
			}
			var v admin.TokenView
			if err := c.do(cmd, "POST", admin.Path("tokens", "inspect"), admin.TokenInspect{Token: text}, &v); err != nil {
				return err
			}
			return c.show(cmd, v, func(t *table) {
				t.field("status", strings.ReplaceAll(v.Status, "_", " "))
				t.field("fault", v.Fault)
				t.field("issuer", v.Issuer)
				t.field("id", v.ID)
				t.field("subject", v.Subject)
				t.field("session", v.Session)
				t.field("client", v.Client)
				t.field("account", v.Account)
				t.field("plan", v.Plan)
				t.field("scopes", strings.Join(v.Scopes, " "))
				t.field("issued", when(v.IssuedAt))
				t.field("good until", when(v.ExpiresAt))
				t.field("claims", meta(v.Claims))
			})
		},
	}
}
