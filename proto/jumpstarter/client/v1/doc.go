// Package clientv1 is the protocol package jumpstarter.client.v1: what
// controllers serve to clients. All but this file is generated.
package clientv1
