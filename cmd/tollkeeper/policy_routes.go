package main

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
)

func (c *cli) policyRoutesCmd() *cobra.Command {
	var cfg config.Policy
	cmd := &cobra.Command{
		Use: "routes [METHOD URL]", Short: "Show the routes of policies, or the route of one request",
		Long: `Show the routes of policies, the more specific before the less specific. No server is needed.
Routes that Envoy can choose only by their names have no path.

With a method and a URL, or a path, show the route of that request and the reading of its
path, as a server finds them. To send headers too, use tollkeeper explain.`,
		Example: `  tollkeeper policy routes --policies policies
  tollkeeper policy routes GET /v1/reports/7
  tollkeeper policy routes POST https://api.example.com/v1/reports`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return nil
			}
			return args("a method, such as GET", "a path or a URL, such as /v1/reports/7")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			if slices.Contains(cfg.Paths, "") { // an unset variable in quotes
				return usagef("--policies must not be empty")
			}
			routes, err := rulebook.LoadRoutes(cmd.Context(), cfg)
			if err != nil {
				return c.policyFaults(cmd, err)
			}
			c.policyWarnings(cmd, routes.Warnings)
			if len(given) == 0 {
				return c.showRoutes(cmd, &routes)
			}
			return c.showRouteOf(cmd, &routes, given[0], given[1])
		},
	}
	cmd.Flags().StringArrayVar(&cfg.Paths, "policies", nil, "directory or file of the policies, can be given again; the shipped ones if not given")
	return cmd
}

// shownRoutes is the JSON form of a table.
type shownRoutes struct {
	Unmatched string         `json:"unmatched"`
	Routes    []*admin.Route `json:"routes"`
}

func (c *cli) showRoutes(cmd *cobra.Command, r *rulebook.Routes) error {
	out := shownRoutes{Unmatched: r.Unmatched, Routes: []*admin.Route{}}
	for _, one := range r.Routes() {
		out.Routes = append(out.Routes, admin.ViewRoute(&authz.RouteFact{State: authz.RouteOK, Route: one}))
	}
	return c.show(cmd, out, func(t *table) {
		t.row("NAME", "METHODS", "HOSTS", "PATH", "NEEDS", "COSTS")
		for _, one := range out.Routes {
			t.row(one.Name, orAll(one.Methods), orAll(one.Hosts), one.Template, needs(one), costs(one))
		}
		t.row("(no route)", "all", "all", "all others", unmatchedNeeds(r.Unmatched), unmatchedCosts(r.Unmatched))
	})
}

func orAll(list []string) string {
	if list == nil {
		return "all"
	}
	return strings.Join(list, ",")
}

// needs says what a route requires of the caller.
func needs(r *admin.Route) string {
	if r.Public {
		return "nothing"
	}
	parts := []string{"key or token"}
	switch {
	case r.Key != "" && r.Token != "":
		parts[0] = "key and token"
	case r.Key != "":
		parts[0] = "key"
	case r.Token != "":
		parts[0] = "token" // which may name the account, so that no key is needed
	}
	for _, p := range []struct {
		name string
		list []string
	}{{"scopes", r.Scopes}, {"plan", r.Plans}} {
		if len(p.list) > 0 {
			parts = append(parts, p.name+" "+strings.Join(p.list, ","))
		}
	}
	if r.Environment != "" {
		parts = append(parts, "environment "+r.Environment)
	}
	return strings.Join(parts, "; ")
}

// costs says what a request of a route is charged.
func costs(r *admin.Route) string {
	switch {
	case r.Public || r.Charge != nil && len(r.Charge) == 0:
		return "nothing"
	case r.Charge == nil:
		return "1 request"
	}
	var parts []string
	for _, limit := range slices.Sorted(maps.Keys(r.Charge)) {
		parts = append(parts, fmt.Sprintf("%d %s", r.Charge[limit], limit))
	}
	return strings.Join(parts, ", ")
}

func unmatchedNeeds(unmatched string) string {
	if unmatched == "deny" {
		return "denied"
	}
	return "key or token"
}

func unmatchedCosts(unmatched string) string {
	if unmatched == "charge" {
		return "1 request"
	}
	return "nothing"
}

// showRouteOf shows the route of one request.
func (c *cli) showRouteOf(cmd *cobra.Command, r *rulebook.Routes, method, target string) error {
	h := &authz.HTTP{Method: method, Path: target}
	if u, isURL := cutURL(target); isURL {
		h.Scheme, h.Host, h.Path = u.scheme, u.host, u.target
	}
	if _, query, has := strings.Cut(h.Path, "?"); has {
		h.Params, _ = url.ParseQuery(query) // what can be read: a parameter may replace the method
	}
	var path authz.PathFact
	var route authz.RouteFact
	r.Match(&authz.Request{HTTP: h}, &path, &route, nil)
	e := &admin.Explanation{Path: admin.ViewReading(&path), Route: admin.ViewRoute(&route)}
	return c.show(cmd, map[string]any{"path": e.Path, "route": e.Route, "unmatched": r.Unmatched}, func(t *table) {
		explainPath(t, e)
		switch {
		case path.State != authz.PathOK:
		case route.Route == nil:
			t.field("needs", unmatchedNeeds(r.Unmatched))
			t.field("costs", unmatchedCosts(r.Unmatched))
		default:
			t.field("needs", needs(e.Route))
			t.field("costs", costs(e.Route))
		}
	})
}
