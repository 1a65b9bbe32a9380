// Package jumpstarterv1 is the protocol package jumpstarter.v1: what exporters,
// controllers and routers serve. All but this file is generated.
package jumpstarterv1
