package model

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Options say how to read and judge files.
type Options struct {
	// Cluster is the Envoy cluster of Tollkeeper: filters that ask another cluster are ignored. "": every ext_authz filter
	// counts.
	Cluster string
	// EnvoyVersion is the version of the Envoy that will read a bootstrap, such as 1.40.0. "": what a dump says, or unknown.
	EnvoyVersion string
	// Unchecked names things that the operator leaves unchecked on purpose: the path, prefix or name of a route, the name of a
	// virtual host or listener, a value that a policy of Istio excludes, or the name of a policy or patch.
	Unchecked []string
	// Ignore are ids of rules that are not applied.
	Ignore []string
	// Usable returns faults that keep a server from starting with a configuration for another machine, as far as they show
	// without that machine's files. nil: this is not tested.
	Usable func(*config.Config) []StartFault
	// Routable returns faults that keep a server from using a table of routes for another machine, as far as they show without
	// its plans. nil: this is not tested.
	Routable func(TableData) []TableFault
	// Operations returns the operations of an OpenAPI document that an entry of a table names, relative to the file with the
	// table. It returns false if it cannot read them. nil: no documents are read.
	Operations func(table, document string) ([]Operation, bool)
	// Now is the time at which certificates must be valid; zero is the present time.
	Now time.Time
}

// IsMeant reports whether Unchecked has the name.
func (o *Options) IsMeant(name string) bool { return name != "" && slices.Contains(o.Unchecked, name) }

// Model is the meaning of a set of files.
type Model struct {
	Options
	Envoys  []*Envoy
	Meshes  []source.Location // Istio's mesh configurations
	Objects Objects
	Own     []*Own
	Tables  []*Table
	Faults  []Fault     // unreadable parts and broken constraints
	Checks  []*ExtAuthz // every place that configures the check
	// HTTPProviders are Istio's providers that ask over HTTP. They count only if no provider asks over gRPC.
	HTTPProviders []source.Location
	Patches       []Patch     // typed configurations in EnvoyFilters
	JSONPatches   []JSONPatch // operations of EnvoyPatchPolicies
	version       Version
}

// Fault says why a part of a file cannot be read.
type Fault struct {
	source.Location
	Text string
	Note bool // a running Envoy accepts it, so it is not an error
}

func fault(at source.Location, format string, args ...any) Fault {
	return Fault{Location: at, Text: fmt.Sprintf(format, args...)}
}

// Build makes the model of files. The error says what is wrong with the options.
func Build(files []*File, opt Options) (*Model, error) {
	m := &Model{Options: opt}
	if m.Now.IsZero() {
		m.Now = time.Now()
	}
	if opt.EnvoyVersion != "" {
		v, ok := parseVersion(opt.EnvoyVersion)
		if !ok {
			return nil, fmt.Errorf("%q is not a version such as 1.40.0", opt.EnvoyVersion)
		}
		m.version = v
	}
	for _, f := range files {
		m.Faults = append(m.Faults, f.faults...)
		m.Meshes = append(m.Meshes, f.meshes...)
		m.Objects = append(m.Objects, f.objects...)
		m.version = cmp.Or(m.version, f.version)
		for _, o := range f.own {
			m.Own = append(m.Own, o.read())
		}
		for _, at := range f.envoys {
			m.Envoys = append(m.Envoys, readEnvoy(at, opt.Cluster))
		}
	}
	m.addTables(files)
	m.addEnvironments()
	m.addFilters()
	m.addPatches()
	m.addProviders()
	m.addPolicies()
	return m, nil
}

// addFilters adds the filters of all Envoys that ask Tollkeeper, and the faults of the Envoys.
func (m *Model) addFilters() {
	for _, e := range m.Envoys {
		m.Faults = append(m.Faults, e.faults...)
		if e.Version == (Version{}) {
			e.Version = m.version
		}
		for _, l := range e.Managers {
			m.Checks = append(m.Checks, l.Checks...)
			for _, u := range l.Upgrades {
				m.Checks = append(m.Checks, u.Checks...)
			}
		}
	}
}

// ChecksBy are the checks that are configured in any of these ways.
func (m *Model) ChecksBy(ways ...Way) []*ExtAuthz {
	var out []*ExtAuthz
	for _, c := range m.Checks {
		if slices.Contains(ways, c.Way) {
			out = append(out, c)
		}
	}
	return out
}

// Protected are the connection managers that ask Tollkeeper about their requests.
func (m *Model) Protected() []*Manager {
	var out []*Manager
	for _, e := range m.Envoys {
		for _, l := range e.Managers {
			if len(l.Checks) > 0 {
				out = append(out, l)
			}
		}
	}
	return out
}

// asksTollkeeper reports whether a filter asks the cluster.
func (m *Model) asksTollkeeper(cluster string) bool {
	return cluster != "" && slices.ContainsFunc(m.Checks, func(c *ExtAuthz) bool { return c.Way == ByFilter && c.Cluster == cluster })
}

// Target is a cluster that filters ask, with the first of these filters.
type Target struct {
	Part[*clusterv3.Cluster]
	Check *ExtAuthz
}

// Targets are the clusters that filters ask, each once for every Envoy.
func (m *Model) Targets() []Target {
	var out []Target
	seen := make(map[*clusterv3.Cluster]bool)
	for _, c := range m.ChecksBy(ByFilter) {
		cluster, ok := c.Manager.Envoy.Cluster(c.Cluster)
		if ok && c.GRPC && !seen[cluster.Msg] {
			seen[cluster.Msg] = true
			out = append(out, Target{cluster, c})
		}
	}
	return out
}

// Identity are the headers that tell upstreams who calls.
var Identity = []string{"x-tollkeeper-key-id", "x-tollkeeper-account", "x-tollkeeper-plan", "x-tollkeeper-subject", "x-tollkeeper-issuer"}

// Credentials are the headers that may hold a credential, and whether Tollkeeper removes them from the request. If the
// files have no configuration of Tollkeeper, its defaults count.
func (m *Model) Credentials() (headers []string, removed bool) {
	if len(m.Own) == 0 {
		return []string{"x-api-key", "authorization"}, true
	}
	c := &m.Own[0].Config
	headers = slices.Clone(c.Credentials.Headers)
	if c.Credentials.Bearer || len(c.Tokens.Issuers) > 0 || c.Tokens.Introspection.URL != "" {
		headers = append(headers, "authorization")
	}
	if len(c.Credentials.Cookies) > 0 {
		headers = append(headers, "cookie")
	}
	return headers, !c.Credentials.Keep
}

// Version is the version of an Envoy. The zero Version is unknown.
type Version [3]int

func parseVersion(text string) (v Version, ok bool) {
	n, err := fmt.Sscanf(text, "%d.%d.%d", &v[0], &v[1], &v[2])
	if n == 2 { // 1.40
		return v, true
	}
	return v, err == nil
}

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// Known reports whether the version is known.
func (v Version) Known() bool { return v != Version{} }

// Before reports whether a version is older than another.
func (v Version) Before(other Version) bool { return slices.Compare(v[:], other[:]) < 0 }
