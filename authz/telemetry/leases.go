package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Leases is what this node has of quotas and rates.
type Leases struct {
	InUse, PutAway int              // holders
	Units          map[string]int64 // leased and not spent, by limit
}

// leases is the collector of Leases.
type leases struct {
	read           func() Leases
	holders, units *prometheus.Desc
}

func newLeases(read func() Leases) *leases {
	return &leases{
		read: read,
		holders: prometheus.NewDesc("tollkeeper_holders",
			"Keys and accounts of which this server has leases or rates, by state: in_use, or put_away (they did not come for some seconds).", []string{"state"}, nil),
		units: prometheus.NewDesc("tollkeeper_leased_units",
			"Units that this server has leased and that are not spent, by limit. If it were killed now, they would be stranded.", []string{"limit"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (l *leases) Describe(ch chan<- *prometheus.Desc) {
	ch <- l.holders
	ch <- l.units
}

// Collect implements prometheus.Collector.
func (l *leases) Collect(ch chan<- prometheus.Metric) {
	s := l.read()
	for state, n := range map[string]int{"in_use": s.InUse, "put_away": s.PutAway} {
		ch <- prometheus.MustNewConstMetric(l.holders, prometheus.GaugeValue, float64(n), state)
	}
	for limit, n := range s.Units {
		ch <- prometheus.MustNewConstMetric(l.units, prometheus.GaugeValue, float64(n), limit)
	}
}
