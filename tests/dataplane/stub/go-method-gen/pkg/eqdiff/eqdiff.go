// Package eqdiff stands in for a module that cannot be downloaded. client-native
// names one type of it in the signatures of its Equal and Diff methods.
package eqdiff

// GoMethodGenOptions says how Equal and Diff compare.
type GoMethodGenOptions struct{ TreatNilNotAsEmpty bool }
