package telemetry

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// Metrics are the server's metrics. Its methods may be called concurrently.
type Metrics struct {
	decisions  *prometheus.CounterVec
	byRoute    *prometheus.CounterVec
	took       prometheus.Histogram
	failures   prometheus.Counter
	policyInfo *prometheus.GaugeVec
	loads      *prometheus.CounterVec
	faults     *prometheus.GaugeVec
	signals    *prometheus.CounterVec
	kept       prometheus.Gauge
	rechecks   *prometheus.CounterVec
	missing    prometheus.Gauge
	// The counters in decisions, looked up once, because every request increments one of them.
	allowed prometheus.Counter
	denied  map[authz.Reason]prometheus.Counter // by known reasons
	other   prometheus.Counter                  // for all other reasons
	// The counters in byRoute, looked up by RoutesLoaded.
	routes              atomic.Pointer[map[string]routeCounters] // by name
	noRoute, otherRoute routeCounters

	reload sync.Mutex // held by RoutesLoaded
}

// Fault is one fault of a policy that was not loaded.
type Fault struct {
	File         string
	Line, Column string
	Code         string
}

// New makes the metrics and registers them. Policies can make up reasons in any number; those that are not in known are
// counted as "other", so that requests cannot add time series.
func New(reg prometheus.Registerer, known []authz.Reason) *Metrics {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollkeeper_decisions_total", Help: "Checks by outcome (allow or deny) and the reason of a denial.",
		}, []string{"outcome", "reason"}),
		byRoute: newRouteDecisions(),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tollkeeper_decision_seconds", Help: "Time that checks take.",
			Buckets: []float64{25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3},
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tollkeeper_policy_errors_total",
			Help: "Functions of the policy that failed in a decision: their expression was undefined, or the decision an error.",
		}),
		policyInfo: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tollkeeper_policy_info", Help: "1 for the revision of the policy in force.",
		}, []string{"revision"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollkeeper_policy_loads_total", Help: "Loads of policies by outcome (ok or failed).",
		}, []string{"outcome"}),
		faults: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tollkeeper_policy_fault", Help: "1 for each fault of the policy that was refused last; none while the policies on disk are in force.",
		}, []string{"file", "line", "column", "code"}),
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollkeeper_signals_refused_total", Help: "Requests to revoke from outside that were refused; the log has only some of them.",
		}, []string{"endpoint"}),
		kept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollkeeper_policy_kept", Help: "1 while the server decides by the last good policy, because it could not start with the configured one.",
		}),
		missing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollkeeper_plans_missing", Help: "Plans that accounts or keys are on and that do not exist, so that their requests are denied.",
		}),
		rechecks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollkeeper_policy_rechecks_total",
			Help: "Decisions of the compiled program that OPA's evaluator repeated: same, different (and denied) or unfinished (there was no time).",
		}, []string{"result"}),
		denied: make(map[authz.Reason]prometheus.Counter, len(known)),
	}
	m.allowed, m.other = m.decisions.WithLabelValues("allow", ""), m.decisions.WithLabelValues("deny", "other")
	for _, r := range known {
		m.denied[r] = m.decisions.WithLabelValues("deny", string(r))
	}
	for _, result := range []string{"same", "different", "unfinished"} {
		m.rechecks.WithLabelValues(result) // zero until it happens, so that the first one is an increase
	}
	m.noRoute, m.otherRoute = m.routeCounters(noRoute), m.routeCounters(otherRoute)
	m.routes.Store(&map[string]routeCounters{})
	reg.MustRegister(m.decisions, m.byRoute, m.took, m.failures, m.policyInfo, m.loads, m.faults, m.kept, m.missing, m.signals, m.rechecks)
	return m
}

// Record counts one decision.
func (m *Metrics) Record(e *check.Entry) {
	m.took.Observe(e.Took.Seconds())
	m.countRoute(e)
	if n := len(e.PolicyErrors); n > 0 {
		m.failures.Add(float64(n))
	}
	if e.Decision.Allowed() {
		m.allowed.Inc()
		return
	}
	if c, ok := m.denied[e.Decision.DeniedFor()]; ok {
		c.Inc()
		return
	}
	m.other.Inc()
}

// SignalRefused counts a refused request to one of the endpoints of the events port.
func (m *Metrics) SignalRefused(endpoint string) { m.signals.WithLabelValues(endpoint).Inc() }

// PolicyLoaded sets the revision of the policy in force and removes the faults.
func (m *Metrics) PolicyLoaded(revision string) {
	m.loads.WithLabelValues("ok").Inc()
	m.policyInfo.Reset()
	m.policyInfo.WithLabelValues(revision).Set(1)
	m.faults.Reset()
}

// Rechecked counts a decision that OPA's evaluator repeated, by a policy.RecheckResult.
func (m *Metrics) Rechecked(result string) { m.rechecks.WithLabelValues(result).Inc() }

// PolicyKept sets whether the policy in force is the kept one: the last good one, saved before this start.
func (m *Metrics) PolicyKept(yes bool) { m.kept.Set(zeroOrOne(yes)) }

// PlansMissing sets how many plans are used and do not exist.
func (m *Metrics) PlansMissing(n int) { m.missing.Set(float64(n)) }

// maxFaults bounds the faults of one policy that become time series.
const maxFaults = 20

// PolicyRefused counts a policy that was not loaded, and sets its faults.
func (m *Metrics) PolicyRefused(faults []Fault) {
	m.loads.WithLabelValues("failed").Inc()
	m.faults.Reset()
	for _, f := range faults[:min(len(faults), maxFaults)] {
		m.faults.WithLabelValues(f.File, f.Line, f.Column, f.Code).Set(1)
	}
}

// Gauges are functions that are called when the metrics are collected. All are required.
type Gauges struct {
	RevocationAge   func() time.Duration // since the list was known to be complete
	RevocationCount func() int
	PruningPaused   func() bool
	LogDropped      func() uint64 // decisions since the start
	ClockDoubted    func() bool
	Issuers         func() []Issuer
	Memo            func() Memo
	Evaluator       func() Evaluator
	Leases          func() Leases
	LogBytes        func() int64 // of the write-ahead log; nil: the store has none
}

// Evaluator says what decides.
type Evaluator struct {
	Name   string // compiled or opa
	Reason string // why it is opa: a policy.EvaluatorReason
}

// evaluator is the collector of Evaluator.
type evaluator struct {
	read func() Evaluator
	desc *prometheus.Desc
}

func newEvaluator(read func() Evaluator) *evaluator {
	return &evaluator{read: read, desc: prometheus.NewDesc("tollkeeper_policy_evaluator",
		"1 for what decides: compiled, or opa and why (configured, unsupported or difference).", []string{"evaluator", "reason"}, nil)}
}

// Describe implements prometheus.Collector.
func (e *evaluator) Describe(ch chan<- *prometheus.Desc) { ch <- e.desc }

// Collect implements prometheus.Collector.
func (e *evaluator) Collect(ch chan<- prometheus.Metric) {
	if now := e.read(); now.Name != "" {
		ch <- prometheus.MustNewConstMetric(e.desc, prometheus.GaugeValue, 1, now.Name, now.Reason)
	}
}

// Memo has the statistics of the verdict cache since the policy in force was loaded.
type Memo struct {
	Hits, Misses int64
	Bypasses     int64 // decisions whose verdict cannot be cached
	Size         int   // verdicts
}

// memo is the collector of Memo.
type memo struct {
	read         func() Memo
	lookups, len *prometheus.Desc
}

func newMemo(read func() Memo) *memo {
	return &memo{
		read: read,
		lookups: prometheus.NewDesc("tollkeeper_policy_memo_total",
			"Decisions by what the cache of verdicts did since the policy in force was loaded: hit, miss, or bypass (the verdict cannot be cached).", []string{"outcome"}, nil),
		len: prometheus.NewDesc("tollkeeper_policy_memo_verdicts", "Verdicts in the cache.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *memo) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.lookups
	ch <- m.len
}

// Collect implements prometheus.Collector.
func (m *memo) Collect(ch chan<- prometheus.Metric) {
	s := m.read()
	for outcome, n := range map[string]int64{"hit": s.Hits, "miss": s.Misses, "bypass": s.Bypasses} {
		ch <- prometheus.MustNewConstMetric(m.lookups, prometheus.CounterValue, float64(n), outcome)
	}
	ch <- prometheus.MustNewConstMetric(m.len, prometheus.GaugeValue, float64(s.Size))
}

// Issuer is the state of the keys of one token issuer.
type Issuer struct {
	Name     string
	Keys     int           // that can be used
	Unusable int           // keys for signatures that cannot be read, or are too weak
	Age      time.Duration // since they were fetched
	Faulty   bool          // the last fetch failed
}

// issuers is the collector of Issuers.
type issuers struct {
	read                       func() []Issuer
	keys, unusable, age, fault *prometheus.Desc
}

func newIssuers(read func() []Issuer) *issuers {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"issuer"}, nil)
	}
	return &issuers{
		read:     read,
		keys:     desc("tollkeeper_issuer_keys", "Keys of a token issuer that can be used."),
		unusable: desc("tollkeeper_issuer_keys_unusable", "Keys of a token issuer that cannot be read, or are too weak; the log says which and why."),
		age:      desc("tollkeeper_issuer_keys_age_seconds", "Time since the keys of a token issuer were fetched."),
		fault:    desc("tollkeeper_issuer_fault", "1 while the keys of a token issuer cannot be fetched."),
	}
}

// Describe implements prometheus.Collector.
func (i *issuers) Describe(ch chan<- *prometheus.Desc) {
	ch <- i.keys
	ch <- i.unusable
	ch <- i.age
	ch <- i.fault
}

// Collect implements prometheus.Collector.
func (i *issuers) Collect(ch chan<- prometheus.Metric) {
	for _, x := range i.read() {
		ch <- prometheus.MustNewConstMetric(i.keys, prometheus.GaugeValue, float64(x.Keys), x.Name)
		ch <- prometheus.MustNewConstMetric(i.unusable, prometheus.GaugeValue, float64(x.Unusable), x.Name)
		ch <- prometheus.MustNewConstMetric(i.age, prometheus.GaugeValue, x.Age.Seconds(), x.Name)
		ch <- prometheus.MustNewConstMetric(i.fault, prometheus.GaugeValue, zeroOrOne(x.Faulty), x.Name)
	}
}

func zeroOrOne(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// TLS is the state of the files of a TLS port.
type TLS struct {
	CertificateEnds, ClientCAEnds time.Time // zero: there is none
	Reloads, Faults               uint64
	Faulty                        bool   // the files on disk cannot be used, and the previous ones are in use
	Refused                       uint64 // clients, in the handshake
}

// tlsFiles is the collector of TLS.
type tlsFiles struct {
	read                           func() TLS
	ends, reloads, fault, refusals *prometheus.Desc
}

// WatchTLS registers the metrics of a port with TLS.
func WatchTLS(reg prometheus.Registerer, read func() TLS) {
	reg.MustRegister(&tlsFiles{
		read: read,
		ends: prometheus.NewDesc("tollkeeper_tls_expiry_timestamp_seconds",
			"When the first certificate in a file that is in use expires, in seconds since 1970.", []string{"file"}, nil),
		reloads:  prometheus.NewDesc("tollkeeper_tls_reloads_total", "Changes of the TLS files by outcome (ok or failed).", []string{"outcome"}, nil),
		fault:    prometheus.NewDesc("tollkeeper_tls_fault", "1 while the TLS files on disk cannot be used, and the previous ones are in use.", nil, nil),
		refusals: prometheus.NewDesc("tollkeeper_tls_clients_refused_total", "Clients that were refused in the TLS handshake.", nil, nil),
	})
}

// Describe implements prometheus.Collector.
func (t *tlsFiles) Describe(ch chan<- *prometheus.Desc) {
	ch <- t.ends
	ch <- t.reloads
	ch <- t.fault
	ch <- t.refusals
}

// Collect implements prometheus.Collector.
func (t *tlsFiles) Collect(ch chan<- prometheus.Metric) {
	s := t.read()
	for file, at := range map[string]time.Time{"cert_file": s.CertificateEnds, "client_ca_file": s.ClientCAEnds} {
		if !at.IsZero() {
			ch <- prometheus.MustNewConstMetric(t.ends, prometheus.GaugeValue, float64(at.Unix()), file)
		}
	}
	for outcome, n := range map[string]uint64{"ok": s.Reloads, "failed": s.Faults} {
		ch <- prometheus.MustNewConstMetric(t.reloads, prometheus.CounterValue, float64(n), outcome)
	}
	ch <- prometheus.MustNewConstMetric(t.fault, prometheus.GaugeValue, zeroOrOne(s.Faulty))
	ch <- prometheus.MustNewConstMetric(t.refusals, prometheus.CounterValue, float64(s.Refused))
}

// Watch registers metrics that are read from gauges.
func Watch(reg prometheus.Registerer, g Gauges) {
	reg.MustRegister(
		newIssuers(g.Issuers), newMemo(g.Memo), newEvaluator(g.Evaluator), newLeases(g.Leases),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tollkeeper_revocation_age_seconds", Help: "Time since the revocation list was last known to be complete.",
		}, func() float64 { return g.RevocationAge().Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tollkeeper_revocations", Help: "Records in the revocation list.",
		}, func() float64 { return float64(g.RevocationCount()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tollkeeper_revocation_pruning_paused", Help: "1 while expired revocations are kept because the clock may be wrong.",
		}, func() float64 { return zeroOrOne(g.PruningPaused()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tollkeeper_decision_log_dropped_total", Help: "Decisions that were not logged because the writer could not keep up.",
		}, func() float64 { return float64(g.LogDropped()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tollkeeper_clock_doubted", Help: "1 while the clock has jumped and quotas count as if it had not.",
		}, func() float64 { return zeroOrOne(g.ClockDoubted()) }),
	)
	if g.LogBytes != nil {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tollkeeper_write_ahead_log_bytes", Help: "Size of the write-ahead log: what is not in the data file yet.",
		}, func() float64 { return float64(g.LogBytes()) }))
	}
}
