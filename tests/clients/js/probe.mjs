// The interface of tests/clients/probe.py, by hand, as an author of a JavaScript client would have it.
export const probeInterface = ({ IDL }) =>
  IDL.Service({
    increment: IDL.Func([], [IDL.Nat64], []),
    value: IDL.Func([], [IDL.Nat64], ['query']),
    whoami: IDL.Func([], [IDL.Principal], ['query']),
    whoami_update: IDL.Func([], [IDL.Principal], []),
    greet: IDL.Func([IDL.Text], [IDL.Text], ['query']),
    echo: IDL.Func([IDL.Vec(IDL.Nat8)], [IDL.Vec(IDL.Nat8)], []),
    fill: IDL.Func([IDL.Nat32], [IDL.Vec(IDL.Nat8)], ['query']),
    fail: IDL.Func([IDL.Text], [], []),
    refuse: IDL.Func([IDL.Text], [], []),
    refuse_query: IDL.Func([IDL.Text], [], ['query']),
    absent: IDL.Func([], [], []),
  });
