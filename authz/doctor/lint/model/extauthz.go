package model

import (
	"strings"
	"time"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// ExtAuthz is the configuration of the check. All ways to configure it are converted to this form. Each field has the location
// where it is set, or where it would be set.
type ExtAuthz struct {
	source.Location
	Way    Way
	Fields Fields
	GRPC   bool                 // it asks over gRPC
	Msg    *extauthzv3.ExtAuthz // of a Filter or Patch

	HTTP          source.Location // where it asks over HTTP
	Timeout       Value[time.Duration]
	FailOpen      Value[bool]
	StatusOnError Value[int] // 403 if it is missing
	Body          source.Location
	ClearRoute    Value[bool]
	Retries       []Value[string] // conditions on which the check is sent again

	Manager *Manager   // of a Filter
	Filter  HTTPFilter // of a Filter
	Index   int        // of a Filter in its chain
	Cluster string     // of a Filter, "" if it names none

	Name     string          // of a Provider
	Provider source.Location // of a Provider, as a whole
	Mesh     source.Location // of a Provider

	Object *Object // of a Policy
}

// Value is a value with its location. If there is nothing at the location, the value is the default.
type Value[T any] struct {
	source.Location
	Value T
}

func newCheck(way Way, at source.Location) *ExtAuthz {
	f := FieldsOf[way]
	c := &ExtAuthz{Location: at, Way: way, Fields: f, GRPC: true}
	c.Body = at.At(f.Body)
	c.Timeout.Location, c.StatusOnError.Location = at.At(f.Timeout), at.At(f.StatusOnError)
	c.FailOpen = isTrue(at, f.FailOpen)
	c.ClearRoute = isTrue(at, f.ClearRoute)
	if f.HTTP != "" {
		c.HTTP = at.At(f.HTTP)
	}
	return c
}

func isTrue(at source.Location, field string) Value[bool] {
	if field == "" {
		return Value[bool]{}
	}
	return Value[bool]{at.At(field), at.At(field).True()}
}

// duration is the duration at a location, or the default if there is none or it is malformed.
func duration(at source.Location, otherwise time.Duration) Value[time.Duration] {
	if d, err := time.ParseDuration(at.Text()); err == nil {
		return Value[time.Duration]{at, d}
	}
	return Value[time.Duration]{at, otherwise}
}

// newMessageCheck reads a check from Envoy's own message.
func newMessageCheck(way Way, at source.Location, msg *extauthzv3.ExtAuthz) *ExtAuthz {
	c := newCheck(way, at)
	c.Msg, c.GRPC = msg, msg.GetGrpcService() != nil
	c.Timeout.Value = envoyTimeout
	if t := msg.GetGrpcService().GetTimeout(); t != nil {
		c.Timeout.Value = t.AsDuration()
	}
	c.StatusOnError.Value = 403
	if code := msg.GetStatusOnError().GetCode(); code != 0 {
		c.StatusOnError = Value[int]{c.StatusOnError.At("code"), int(code)}
	}
	retry := msg.GetGrpcService().GetRetryPolicy().GetRetryOn()
	for _, on := range strings.FieldsFunc(retry, func(r rune) bool { return r == ',' || r == ' ' }) {
		c.Retries = append(c.Retries, Value[string]{at.At(c.Fields.Retry), on})
	}
	return c
}

// newObjectCheck reads a check from an object of Istio or Envoy Gateway.
func newObjectCheck(way Way, at source.Location, timeout time.Duration) *ExtAuthz {
	c := newCheck(way, at)
	c.Timeout = duration(c.Timeout.Location, timeout)
	if c.StatusOnError.Value = c.StatusOnError.Number(); c.StatusOnError.Value == 0 {
		c.StatusOnError.Value = 403
	}
	return c
}

// addProviders adds the extension providers of Istio that ask Tollkeeper.
func (m *Model) addProviders() {
	any := false
	for _, mesh := range m.Meshes {
		for _, at := range mesh.At("extensionProviders").Items() {
			name := at.At("name").Text()
			at = at.Called("extension provider %q", name)
			c := newObjectCheck(ByProvider, at.At("envoyExtAuthzGrpc"), IstioTimeout)
			c.Name, c.Provider, c.Mesh = name, at, mesh
			if c.Exists() && (m.Cluster == "" || m.Cluster == name || strings.Contains(m.Cluster, c.Host())) {
				m.Checks, any = append(m.Checks, c), true
			}
			if http := at.At("envoyExtAuthzHttp"); http.Exists() {
				m.HTTPProviders = append(m.HTTPProviders, http.Called("extension provider %q", name))
			}
		}
	}
	if any {
		m.HTTPProviders = nil
	}
}

// Host is the name of the service that a provider asks.
func (c *ExtAuthz) Host() string {
	text := c.At("service").Text()
	if _, host, ok := strings.Cut(text, "/"); ok {
		return host
	}
	return text
}

// addPolicies adds the security policies of Envoy Gateway that ask.
func (m *Model) addPolicies() {
	for _, o := range m.Objects.Of(EnvoyGateway, "SecurityPolicy") {
		if at := o.ExtAuth(); at.Exists() && !o.DropsCheck() {
			c := newObjectCheck(ByPolicy, at, policyTimeout)
			c.Object = o
			for _, t := range at.At(c.Fields.Retry).Items() {
				c.Retries = append(c.Retries, Value[string]{t, t.Text()})
			}
			m.Checks = append(m.Checks, c)
		}
	}
}

// Withholds reports whether Envoy does not send a header to Tollkeeper, and returns the location of that setting. unlisted reports
// that the header is missing from a list of allowed headers.
func (c *ExtAuthz) Withholds(header string) (at source.Location, unlisted, withheld bool) {
	switch {
	case c.Way == ByPolicy:
		list := c.At(c.Fields.Headers)
		shown := !list.Exists() || list.Any(func(l source.Location) bool { return strings.EqualFold(l.Text(), header) })
		return list, true, !shown
	case c.Msg == nil:
	case anyMatches(c.Msg.GetDisallowedHeaders().GetPatterns(), header):
		return c.At("disallowed_headers"), false, true
	case c.Msg.GetAllowedHeaders() != nil && !anyMatches(c.Msg.GetAllowedHeaders().GetPatterns(), header):
		return c.At(c.Fields.Headers), true, true
	}
	return source.Location{}, false, false
}

// Limits are limits on connections to Tollkeeper.
type Limits struct {
	Check    *ExtAuthz
	Connect  Value[time.Duration]
	Requests Value[int] // concurrent
}

// Limits are the limits of all clusters, DestinationRules and policies that configure connections to Tollkeeper.
func (m *Model) Limits() []Limits {
	var out []Limits
	for _, t := range m.Targets() {
		l := Limits{t.Check, Value[time.Duration]{t.At(envoyFields.Connect), envoyConnect}, Value[int]{t.At(envoyFields.Breaker), 0}}
		if c := t.Msg.GetConnectTimeout(); c != nil {
			l.Connect.Value = c.AsDuration()
		}
		l.Requests.Value = t.maxRequests()
		out = append(out, l)
	}
	for _, c := range m.Checks {
		at := c.Location
		switch c.Way {
		case ByProvider:
			rule := m.Objects.DestinationRule(c.Host())
			if rule == nil {
				continue
			}
			at = rule.At("spec")
		case ByPolicy:
		default:
			continue
		}
		l := Limits{c, duration(at.At(c.Fields.Connect), gatewayConnect), Value[int]{at.At(c.Fields.Breaker), MaxRequests}}
		if l.Requests.Exists() {
			l.Requests.Value = l.Requests.Number()
		} else if c.Way == ByProvider {
			l.Requests.Value = unlimited
		}
		out = append(out, l)
	}
	return out
}

const unlimited = 1 << 31

// maxRequests is a cluster's limit on concurrent requests of the default priority.
func (t *Target) maxRequests() int {
	most := uint32(0)
	for _, b := range t.Msg.GetCircuitBreakers().GetThresholds() {
		if b.GetPriority() == 0 && b.GetMaxRequests() != nil {
			most = max(most, b.GetMaxRequests().GetValue())
		}
	}
	if most == 0 {
		return MaxRequests
	}
	return int(most)
}
