-- A model says which films have weights, so that large catalogues can have some: what was learned before is learned anew.
delete from recommender.models;
